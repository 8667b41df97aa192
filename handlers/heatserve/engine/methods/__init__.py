"""The methods that heatserve brings: a file for each family, with its functions and its rows."""

from .attentions import ATTENTIONS
from .cams import CAMS
from .gradients import GRADIENTS
from .paths import PATHS
from .perturbations import PERTURBATIONS
from .smoothdiff import SMOOTHDIFF

BUILT_IN = (*CAMS, *GRADIENTS, *SMOOTHDIFF, *PATHS, *PERTURBATIONS, *ATTENTIONS)

__all__ = ["ATTENTIONS", "BUILT_IN", "CAMS", "GRADIENTS", "PATHS", "PERTURBATIONS", "SMOOTHDIFF"]
