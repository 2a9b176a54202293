"""What becomes of shared documents when everything goes wrong.

``python -m polystore_flows.testing.faults --minutes 5`` kills writers at random for as long as is
asked, then kills and fails one writer at every single system call, and prints what was lost.
"""

from polystore_flows.testing.faults.scenarios import SCENARIOS, run
from polystore_flows.testing.faults.storm import Figures, storm

__all__ = ["SCENARIOS", "Figures", "run", "storm"]
