/* A wall clock that is wrong by as many seconds as the file named by WRONG_CLOCK says: eight bytes,
 * a signed number in the machine's own order, which may change at any time.
 *
 * Preloaded into a process and its children by `python -m harness.soak clock`. Clocks that count
 * from the machine's start stay right, and waits until a time of the wall clock last as long as
 * they should. That is where libfaketime fails: it has sleeps by those other clocks end with EINVAL
 * once its file has changed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

/* A time of the wall clock is beyond this many seconds; one of any other clock is not. */
#define EPOCH 1000000000

static const volatile int64_t right = 0;
static const volatile int64_t *wrong = &right;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WRONG_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *seen = mmap(NULL, sizeof *wrong, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (seen != MAP_FAILED)
        wrong = seen;
}

/* The true time at which a wrong one comes. */
static struct timespec truly(const struct timespec *until)
{
    struct timespec found = *until;
    if (found.tv_sec > EPOCH)
        found.tv_sec -= *wrong;
    return found;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static __typeof__(&clock_gettime) next;
    if (!next)
        next = NEXT(clock_gettime);
    int failed = next(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *wrong;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    (void)zone;
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (told)
        *told = found.tv_sec;
    return found.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    struct timespec then = truly(until);
    return NEXT(pthread_cond_timedwait)(condition, mutex, &then);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex,
                  const struct timespec *restrict until)
{
    struct timespec then = truly(until);
    return NEXT(cnd_timedwait)(condition, mutex, &then);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec then = truly(until);
    return NEXT(sem_timedwait)(semaphore, &then);
}
