from .batches import CellData as CellData, choose_held_out as choose_held_out
from .loop import fit as fit, is_closed_form as is_closed_form
from .run import TrainingRun as TrainingRun
