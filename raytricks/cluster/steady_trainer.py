"""Ray Train's trainer without its placement group cleaner, which ends runs that are well."""

from ray.train.torch import TorchTrainer

_CLEANER = "PlacementGroupCleanerCallback"


class SteadyTrainer(TorchTrainer):
    """A TorchTrainer whose workers live as long as its controller, whatever else runs on the machine.

    The cleaner of Ray 2.60 asks the state API whether the controller lives. On a cluster without a
    dashboard, or with RAY_API_SERVER_ADDRESS set, another cluster answers that it knows no such actor,
    and the cleaner takes the workers' resources away. The controller's end frees them without it.
    """

    def _create_default_callbacks(self):
        return [one for one in super()._create_default_callbacks() if type(one).__name__ != _CLEANER]
