"""What a column took, in words."""

from regmix.runs.columns import Cost


def test_passes_are_told_per_attacked_image() -> None:
    cost = Cost(images=40, forward=2080, backward=2000, seconds=3.14159)
    assert cost.text() == "52 forward and 50 backward passes per image, 3.14 s"
    assert Cost(0, 0, 0, 0.0).text() == "0 forward and 0 backward passes per image, 0 s"
    assert Cost(3, 30_000, 0, 1234.5).text() == "10,000 forward and 0 backward passes per image, 1,234 s"
