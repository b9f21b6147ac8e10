"""How a model is trained: the knobs of the loop. No knob of a model, a loss or a data set belongs here."""

from typing import Literal

from pydantic import Field, model_validator

from components.contracts import Frozen


class TrainingConfig(Frozen):
    """Settings of :class:`components.training.loop.Trainer`, the same for every family."""

    num_steps: int = Field(description="Optimizer steps; 0 saves the model as it was built (a pretrained one).", ge=0)
    batch_size: int = Field(description="Rows per optimizer step over all workers.", gt=0)
    learning_rate: float = Field(description="Peak learning rate of AdamW.", gt=0)
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="After warm-up, towards 0."
    )
    num_warmup_steps: int = Field(default=0, description="Steps of linear warm-up.", ge=0)
    weight_decay: float = Field(default=0.01, description="AdamW's decoupled weight decay.", ge=0)
    betas: tuple[float, float] = Field(default=(0.9, 0.98), description="AdamW's running-average coefficients.")
    max_grad_norm: float = Field(default=1.0, description="Gradients are clipped to this norm.", gt=0)
    gradient_accumulation: int = Field(default=1, description="Micro-batches per step; must divide the batch.", gt=0)
    ema_decay: float = Field(
        default=0.0, description="Decay of the weights' moving average that is saved; 0 turns it off."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Autocast type of forward and backward; auto is bf16 where the device has instructions for it.",
    )
    seed: int = Field(default=0, description="Seed of order, noise, timesteps and caption choice.")
    num_threads: int = Field(
        default=1, description="CPU threads; fixed, because sums depend on it in the last bit.", gt=0
    )
    num_workers: int = Field(default=1, description="Ray Train workers; 1 trains in the run's own process.", gt=0)
    num_gpus_per_worker: float = Field(default=0.0, description="GPUs that each worker takes.", ge=0)
    log_every: int = Field(default=20, description="Steps between logged losses.", gt=0)
    preview_every: int = Field(
        default=0, description="Steps between sample pictures; 0 makes them at the end only.", ge=0
    )
    checkpoint_every: int = Field(default=0, description="Steps between checkpoints; 0 keeps none.", ge=0)
    num_checkpoints: int = Field(
        default=1, description="Newest checkpoints that are kept until the training has ended.", gt=0
    )
    min_workers: int | None = Field(
        default=None,
        description="Elastic: fewest workers with which it goes on where the cluster holds no more; none: num_workers.",
        gt=0,
    )
    max_lost_workers: int = Field(
        default=3, description="How many lost workers a training on Ray survives: it goes on from its checkpoint.", ge=0
    )
    sharding: Literal["none", "full"] = Field(
        default="none",
        description="Over several workers: whole copies and averaged gradients (DDP), or everything cut up (FSDP).",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass: less memory, a third more time."
    )
    compile: bool = Field(
        default=False,
        description="Compile the networks with torch.compile: about a minute once, then quicker steps. Needs a C++ "
        "compiler on CPUs.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "TrainingConfig":
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers {self.min_workers} is more than num_workers {self.num_workers}")
        if self.compile and self.sharding == "full":
            raise ValueError("compile=true and sharding='full' are not supported together: turn one of them off")
        return self

    @property
    def gang_sizes(self) -> tuple[int, ...]:
        """Numbers of workers that it may have, ascending: those from ``min_workers`` on that divide the batch."""
        fewest = self.min_workers or self.num_workers
        return tuple(number for number in range(fewest, self.num_workers + 1) if self.divides_over(number))

    def divides_over(self, num_workers: int) -> bool:
        """Whether each of so many workers gets an equal share of every micro-batch."""
        return self.batch_size % (num_workers * self.gradient_accumulation) == 0
