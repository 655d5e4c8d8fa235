"""What an operator gets who says nothing."""

from masquerade.settings import Settings


def test_nothing_but_the_cluster_and_link_local_is_kept() -> None:
    assert Settings() == Settings(non_masquerade_cidrs=(), masquerade_link_local=False)
