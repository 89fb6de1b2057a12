"""Names of measurements: renaming them, giving them units, and refusing what the API would."""

import re
from collections.abc import Iterable, Mapping

from iotflow.cli.terminal import quoted
from iotflow.errors import ConfigurationError
from iotflow.telemetry import verdicts

_MOST_SHOWN = 5
_UNFIT = re.compile(r"[^A-Za-z0-9_./-]+", re.ASCII)


class Naming:
    """`--rename OLD=NEW` and `--unit NAME=UNIT`, read.

    An empty NEW leaves a measurement out. A unit may be given by the old or the new name.
    """

    def __init__(self, rename: Iterable[str], unit: Iterable[str]) -> None:
        self.renamed = _pairs("--rename", "OLD=NEW", rename)
        self.units = _pairs("--unit", "NAME=UNIT", unit)
        for name, text in self.units.items():
            if not verdicts.valid_unit(text):
                raise ConfigurationError(
                    f"--unit: the unit of {quoted(name)} is longer than 32 characters."
                )

    def new_name(self, old: str) -> str:
        """'' for what is to be left out."""
        return self.renamed.get(old, old)

    def unit_of(self, old: str, new: str) -> str:
        return self.units.get(new) or self.units.get(old, "")

    def is_valid(self, old: str) -> bool:
        """Whether the API takes its new name, or it is left out."""
        new = self.new_name(old)
        return not new or verdicts.canonical_name(new) is not None

    def require_known(self, old_names: Iterable[str]) -> None:
        """Refuse options that name no measurement of the file.

        Raises:
            ConfigurationError: one does.
        """
        known = set(old_names)
        for old in self.renamed:
            if old not in known:
                raise ConfigurationError(f"--rename: there is no measurement {quoted(old)}.")
        known |= {self.new_name(old) for old in known}
        for name in self.units:
            if name not in known:
                raise ConfigurationError(f"--unit: there is no measurement {quoted(name)}.")

    def require_valid(self, old_names: Iterable[str]) -> None:
        """Refuse names that the API would refuse, with a hint how to rename them.

        Raises:
            ConfigurationError: some are not valid.
        """
        invalid = [old for old in dict.fromkeys(old_names) if not self.is_valid(old)]
        if not invalid:
            return
        shown = ", ".join(quoted(old) for old in invalid[:_MOST_SHOWN])
        more = f" and {len(invalid) - _MOST_SHOWN} more" if len(invalid) > _MOST_SHOWN else ""
        hint = f"{invalid[0]}={suggested(invalid[0])}".replace("'", "'\\''")
        raise ConfigurationError(
            f"Not valid as names of measurements: {shown}{more}. A name has 1 to 64 of letters, "
            f"digits and _ . - / and begins with a letter. Give --rename '{hint}' and so on "
            "(nothing after the = leaves it out)."
        )


def suggested(name: str) -> str:
    """A valid name close to one that is not."""
    fit = _UNFIT.sub("_", name).strip("_.-/")[:60]
    return fit if fit and fit[0].isalpha() else f"m_{fit}".rstrip("_")


def _pairs(option: str, form: str, given: Iterable[str]) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for each in given:
        # The last equals sign divides: names in headers may have some, valid names have none.
        divided = each.rpartition("=") if option == "--rename" else each.partition("=")
        name, equals, other = divided
        if not equals or not name.strip():
            raise ConfigurationError(f"{option}: write it as {form}, not {quoted(each)}.")
        pairs[name.strip()] = other.strip()
    return pairs
