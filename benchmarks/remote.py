"""An object in a process of its own, told what to do over a pipe."""

from __future__ import annotations

import contextlib
import signal
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final, Self

from harness.process import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

__all__ = ["Remote"]

_END_S: Final = 5.0


class Remote:
    """A process that makes an object, then calls its methods one after the other.

    As a context manager it is ended on exit; it also ends with the process that started it.

    Args:
        factory: Makes the object, in the new process.
        arguments: Of the factory.
    """

    def __init__(self, factory: Callable[..., object], *arguments: object) -> None:
        context = get_context("spawn")
        self._name = factory.__name__
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, factory, arguments), daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: object) -> None:
        """Calls a method, without waiting for it."""
        self._pipe.send((method, arguments))

    def answer(self) -> Any:  # noqa: ANN401 - what the method returns
        """Waits for what the method called last returns.

        Raises:
            HarnessError: It raised, or the process has ended.
        """
        try:
            done, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise HarnessError(f"process of {self._name}: ended unasked") from error
        if not done:
            raise HarnessError(f"process of {self._name}: {value}")
        return value

    def call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - as `answer`
        """Calls a method and waits for what it returns.

        Raises:
            HarnessError: As `answer`.
        """
        self.ask(method, *arguments)
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._process.kill()  # it may be amid a call
        self.close()


def _serve(pipe: Connection, factory: Callable[..., object], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    with contextlib.suppress(EOFError, BrokenPipeError):
        made: object = None
        while True:
            method, given = pipe.recv()
            try:
                made = made or factory(*arguments)
                reply = True, getattr(made, method)(*given)
            except Exception as error:  # noqa: BLE001 - told to the parent, which raises
                reply = False, f"{type(error).__name__}: {error}"
            pipe.send(reply)
