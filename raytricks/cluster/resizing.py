"""Workers that come and go: nothing is lost when Ray Train changes their number."""

from pathlib import Path
from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import ResizingState

from raytricks.cluster.requests import Requests

_SAVE_WAIT_S = 60


class SaveBeforeResize(ControllerCallback):
    """Has the workers save and leave before Ray Train ends them for another number of workers.

    Ray Train 2.60 ends the group without a word, and the steps since the newest checkpoint are made
    again. It calls this in the controller.
    """

    def __init__(self, run_dir: Path) -> None:
        self._requests = Requests(run_dir)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Wait until the state is saved; workers that do not answer are ended all the same."""
        if isinstance(current_state, ResizingState):
            self._requests.ask_to_leave()
            self._requests.await_leave(_SAVE_WAIT_S)
