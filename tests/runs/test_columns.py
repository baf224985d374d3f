"""What a column took, in words."""

from regmix.runs.columns import Column, Cost, Source, without_autoattack


def test_passes_are_told_per_attacked_image() -> None:
    cost = Cost(images=40, forward=2080, backward=2000, seconds=3.14159)
    assert cost.text() == "52 forward and 50 backward passes per image, 3.14 s"
    assert Cost(0, 0, 0, 0.0).text() == "0 forward and 0 backward passes per image, 0 s"
    assert Cost(3, 30_000, 0, 1234.5).text() == "10,000 forward and 0 backward passes per image, 1,234 s"


def column(attack: str, eps: str, source: Source | None = None) -> Column:
    return Column(attack, float(eps), eps, 0.5, 0.4, 0.6, 5, source=source)


def test_autoattack_counts_at_its_own_radius_only() -> None:
    parts = ("apgd-ce", "apgd-t", "fab-t", "square")
    assert without_autoattack([column("clean", "0")]) == []
    assert without_autoattack([column("autoattack", "0.1"), column("pgd-10", "0.2")]) == ["0.2"]
    assert without_autoattack([column(name, "0.1") for name in parts]) == []
    assert without_autoattack([column(name, "0.1" if name != "square" else "0.2") for name in parts]) == ["0.1", "0.2"]
    assert without_autoattack([column("autoattack-screened", "0.1")]) == ["0.1"]
    assert without_autoattack([column("autoattack", "0.1", Source("other", "digest"))]) == ["0.1"]
