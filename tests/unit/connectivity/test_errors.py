from connectivity.errors import ConnectivityError, Missing, Refused


def test_whoever_catches_the_root_catches_all() -> None:
    assert issubclass(Missing, ConnectivityError)
    assert issubclass(Refused, ConnectivityError)
