"""How long a statement of SQLite may hold up the event loop that it runs on."""


class StepLimit:
    """A progress handler, to be called at every EVERY steps, that ends a statement after `steps`.

    Steps are instructions of SQLite's virtual machine, each some 12 ns.
    """

    EVERY = 10_000

    __slots__ = ("_calls", "_left")

    def __init__(self, steps: int) -> None:
        self._calls = steps // self.EVERY
        self._left = 0

    def begin(self) -> None:
        """Count from here on: a statement begins."""
        self._left = self._calls

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0
