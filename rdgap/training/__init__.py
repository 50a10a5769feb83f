"""Training of codecs: recipe + images -> weights. `python -m rdgap.training` is the command."""

from .loop import TrainingResult as TrainingResult
from .loop import train as train
from .validation import Validation as Validation
from .validation import validate as validate
