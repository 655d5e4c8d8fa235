"""What can end a self-test before it has an answer."""


class ConnectivityError(Exception):
    """Root of these; the message says what to do about it."""


class Missing(ConnectivityError):
    """What was asked for is not there."""


class Refused(ConnectivityError):
    """The API server, or we, will not do it."""
