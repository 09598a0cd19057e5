"""Mutants of what people are shown and asked."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="colours-left-on",
        breaks="a log that ends with colours or modes on leaves them to the terminal",
        file="dstack/ui/colours.py",
        old='        return RESET if self._in_force else b""',
        new='        return b""',
        tests=("tests/unit/ui/test_colours.py",),
    ),
    Mutant(
        name="interrupted-in-colours",
        breaks="Ctrl-C in `dstack logs -f` leaves the colours of the job to the terminal",
        file="dstack/cli/logs.py",
        old="""        finally:
            out.write(streams.finish_all())
            out.flush()
""",
        new="""        except KeyboardInterrupt:
            raise
        else:
            out.write(streams.finish_all())
            out.flush()
""",
        tests=("tests/cli/test_given_back.py",),
    ),
)
