"""Run process_plate in a process of its own, as users do: python run_flow.py '{"source": …}'."""

from __future__ import annotations

import json
import sys

from polystore_flows.flows.plates import process_plate


def main() -> None:
    """Print the id of the flow run, its state and its message, as JSON in the last line."""
    state = process_plate(**json.loads(sys.argv[1]), return_state=True)
    run = str(state.state_details.flow_run_id)
    print(json.dumps({"run": run, "state": state.name, "message": state.message}), flush=True)


if __name__ == "__main__":
    main()
