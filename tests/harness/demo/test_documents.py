import sys

from harness.demo.documents import changes, gather, outcomes, record_of


def test_texts_are_many_mixed_and_the_same_each_time() -> None:
    """Documents have ids of their own, come two to one from library and packages, and stay so."""
    found = gather(300)
    assert len({one.id for one in found}) == 300
    assert sum(one.package in sys.stdlib_module_names for one in found) == 200
    assert gather(300) == found


def test_changes_touch_a_quarter_and_are_all_good() -> None:
    """There are texts, metadata alone and deletions, the latter two only of living documents."""
    documents = gather(400)
    alive = {record_of(one)[0] for one in documents}
    kinds = set()
    for key, value in changes(documents):
        assert key in {one.id.encode() for one in documents[:100]}
        if value is None:
            kinds.add("deletion")
            alive.remove(key)
        elif b'"text"' in value:
            kinds.add("text")
            alive.add(key)
        else:
            kinds.add("metadata")
            assert key in alive
    assert kinds == {"deletion", "text", "metadata"}
    assert outcomes([]) == []
