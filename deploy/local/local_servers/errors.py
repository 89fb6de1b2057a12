"""What can go wrong, told to the person who started it."""


class LocalServersError(Exception):
    """The message says what failed and what to do; it is shown as it is."""


class NotReadyError(Exception):
    """A server does not answer yet, or not rightly."""


class ServerEndedError(LocalServersError):
    """A server's process ended while it was starting."""


def say(message: str) -> None:
    """Progress. Standard output is for the settings alone."""
    import sys

    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
