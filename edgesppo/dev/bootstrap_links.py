"""Lets type checkers and editors find the packages of the checkout.

pip makes a folder of another name (convert/ is imported as edgesppo_convert) known by an import
hook, which nobody sees but a Python that runs. So an environment also has

    VENV/.edgesppo-packages/edgesppo            a link to edgesppo/ of the checkout
    VENV/.edgesppo-packages/edgesppo_convert    a link to convert/
    SITE_PACKAGES/edgesppo-checkout.pth         puts that folder on the environment's path

The links are not in site-packages: there `pip install .` would write through them.
"""

from __future__ import annotations

import errno
import os
import sysconfig
from pathlib import Path

from edgesppo.native_build.child import say

CHECKOUT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
_FOLDERS = {"edgesppo": "edgesppo", "edgesppo_convert": "convert"}
# EINVAL: Windows, for a user who may not make links.
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def link_packages(venv: Path) -> None:
    """Make the links anew, in an environment of this Python's version. Raises OSError.

    Where there are no links it says so: all that runs needs none.
    """
    links = venv / ".edgesppo-packages"
    links.mkdir(exist_ok=True)
    try:
        for name, folder in _FOLDERS.items():
            (links / name).unlink(missing_ok=True)
            (links / name).symlink_to(CHECKOUT / folder, target_is_directory=True)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        say(f"Type checkers will not find edgesppo here: no links can be made in {links}")
    else:
        (_site_packages(venv) / "edgesppo-checkout.pth").write_text(f"{links}\n", encoding="utf-8")


def _site_packages(venv: Path) -> Path:
    scheme = "nt" if os.name == "nt" else "posix_prefix"  # the default may be a distribution's own
    base = {"base": str(venv), "platbase": str(venv)}
    return Path(sysconfig.get_path("purelib", scheme, base))
