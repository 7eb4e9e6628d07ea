"""What the outcome of a run with `debug=...` means."""

from hp_lightning.common.run_dir import RunDir

BY_HEART = 0.1  # nats per token: a loss below it is that of sequences known by heart


def outcome(mode: str, run_dir: RunDir, steps: int, train_loss: float) -> str:
    """The outcome of a run that has come to its end.

    Args:
        mode: `debug` of its config
        steps: that it has taken
        train_loss: of the last step, in nats per token
    """
    if mode == "overfit" and train_loss < BY_HEART:
        return (
            f"the loss on the same sequences is {train_loss:.3f} after {steps} steps: they are known by heart; data, "
            "loss, gradients and optimizer fit together"
        )
    if mode == "overfit":
        return (
            f"the loss on the same sequences is still {train_loss:.3f} after {steps} steps, where less than {BY_HEART} "
            "was expected: something between data, loss, gradients and optimizer is wrong, the rate is too low, or the "
            "network is too small"
        )
    return {
        "fast": "every stage of a run went through: the settings go together; the figures mean nothing",
        "anomaly": f"no gradient was NaN or infinite in {steps} steps",
        "profile": f"where the time of a step goes: {run_dir.profile}, operators.txt and a trace for ui.perfetto.dev",
    }[mode]
