"""The settings: one frozen, validated object, from a TOML file and the environment.

`HEADRACE_SECTION__NAME` in the environment wins over the file that `HEADRACE_CONFIG` names
(`headrace.toml` if there is one). A name that is none is an error.
"""

from flows.settings.reading import load, settings_of
from flows.settings.services import AuthSettings, is_loopback
from flows.settings.values import FIXED_COLUMNS
from flows.settings.whole import Settings

__all__ = ["FIXED_COLUMNS", "AuthSettings", "Settings", "is_loopback", "load", "settings_of"]
