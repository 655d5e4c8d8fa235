"""When work is due: at once after a rest, seldom under load, again after a failure."""

from random import Random


class Pace:
    """Times are of one monotonic clock, in seconds; whoever waits says what time it is.

    After a round comes a rest of three times its length, *longest_rest_s* at most, in which news
    gather: so a burst costs a quarter of a processor, and a single change waits for nothing.  A
    failed round is repeated after a pause that doubles; without news there is one each
    *longest_s*.
    """

    def __init__(
        self,
        random: Random,
        *,
        longest_rest_s: float,
        longest_s: float,
        first_retry_s: float = 0.5,
        longest_retry_s: float = 30.0,
    ) -> None:
        self._random = random
        self._longest_rest_s, self._longest_s = longest_rest_s, longest_s
        self._first_retry_s, self._longest_retry_s = first_retry_s, longest_retry_s
        self._retry_s = first_retry_s
        self._begun = self._earliest = self._latest = 0.0
        self._is_hurried = False

    def begin(self, now: float) -> bool:
        """Note that a round begins; returns whether it has to look at everything."""
        is_whole = self._is_hurried or now >= self._latest
        self._begun, self._is_hurried = now, False
        return is_whole

    def end(self, now: float, *, well: bool) -> None:
        """Note that it is over."""
        self._earliest = now + min(3 * (now - self._begun), self._longest_rest_s)
        if well:
            self._retry_s = self._first_retry_s
            self._latest = now + self._longest_s * (0.9 + 0.2 * self._random.random())
            return
        self._latest = now + self._retry_s * (0.5 + self._random.random())
        self._retry_s = min(2 * self._retry_s, self._longest_retry_s)

    def hurry(self) -> None:
        """The next round has to look at everything, and is due; also while one is at work."""
        self._is_hurried = True

    def wait_s(self, now: float, *, has_news: bool) -> float:
        """For how long nothing is to be done."""
        is_due = has_news or self._is_hurried
        return max(0.0, (self._earliest if is_due else max(self._earliest, self._latest)) - now)
