"""Defaults of settings that stages and runners share: whoever shows a setting loads no stage."""

__all__ = [
    "CHECKPOINT_EXAMPLES",
    "CHECKPOINT_S",
    "COMMAND_AGE_MS",
    "LEARN_BUDGET_S",
    "LINE_MEMORY_MB",
    "TRAINING_MEMORY_MB",
    "TRAINING_S",
]

# The learners are written down at least this often (in examples): what a crash costs is
# learning so many again, what a checkpoint costs is pickling every learner.
CHECKPOINT_EXAMPLES = 512
# While records come, state is written down at least this often (in seconds).
CHECKPOINT_S = 60.0
# How far a command's time may be from its arrival on the log, either way (in milliseconds).
COMMAND_AGE_MS = 3_600_000
# How long a line may take to learn an example (in seconds).
LEARN_BUDGET_S = 1.0
# How much memory the process of a line may have, where it has one (in megabytes).
LINE_MEMORY_MB = 4_096
# How long a training may take (in seconds), and how much memory (in megabytes).
TRAINING_S = 120.0
TRAINING_MEMORY_MB = 4_096
