"""`headrace init` on topics that are unlike: its settings serve the flow as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flows.settings import load
from harness.flow import Flow
from harness.process import ROOT
from tests.brokers import send, topic_on
from tests.cli.conftest import headrace
from tests.integration.pipeline import Pipeline
from tests.integration.unlike import topics

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker
    from tests.integration.unlike import Unlike

pytestmark = pytest.mark.kafka
