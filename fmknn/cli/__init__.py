"""The command line: ``fmknn fit | recommend | evaluate | sagemaker | demo``.

Data goes to stdout, whatever else is said to stderr. Exit codes: 0 done; 1 something is wrong with
the data, the model or the machine, told in one line; 2 the command line itself is wrong; 130
interrupted.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from .arguments import make_parser

__all__ = ["main"]

# what errors of the library advise, in the words of the command line
_OPTIONS = {
    r"allow_overlap=True": "--allow-overlap",
    r"append=True": "--append",
    r"context=\{'([^']*)': …\}": r"--context \1=LEVEL",
    r'context_default="(\w+)" or "(\w+)"': r"--context-default \1 or \2",
    r"relevant_from=": "--relevant-from ",
    r"relevant_from": "--relevant-from",
    r"region=…": "--region REGION",
    r"resume=True": "--resume",
    r"search='local'": "--search local",
    r"instance_type": "--instance-type",
    r"max_payload_mb": "--max-payload-mb",
    r"max_runtime": "--max-runtime",
    r"raise deadline": "raise --deadline",
    r"run_id": "--run-id",
    r"table=…": "--table NAME",
    r'the form "plain"': "--form plain",
    r"volume_size_gb": "--volume-size-gb",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; default: that of the process.

    Examples
    --------
    >>> main(["recommend", "nothing-here.fmknn", "--all"])
    1
    """
    try:
        args = make_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said what is wrong, or has shown its help
        return int(stop.code or 0)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has read enough
        _discard_stdout()
    except KeyboardInterrupt:
        print("fmknn: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"fmknn: error: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    text = " ".join(str(error).split())
    for said, option in _OPTIONS.items():
        text = re.sub(rf"\b{said}", option, text)
    return text or type(error).__name__


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere, or Python would complain about it at its end."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
