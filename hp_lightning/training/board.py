"""Everything that TensorBoard shows of a run."""

from collections.abc import Mapping

from hp_lightning.common.failpoints import failpoint
from hp_lightning.data.corpus_table import corpus_in_markdown
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.train import to_yaml
from hp_lightning.training.callbacks.plots import LogPlots
from hp_lightning.training.callbacks.samples import LogSamples, PeriodicCallback
from hp_lightning.training.loggers.hparams import settings, write_settings
from hp_lightning.training.loggers.projector import write_projector
from hp_lightning.training.loggers.tensorboard import TensorBoardLogger, code_block
from hp_lightning.training.run import Run


class Board:
    """Curves, texts, images, settings and embeddings of a run, in its folder.

    Args:
        run: its folder, config and corpus
        net: what is trained
    """

    def __init__(self, run: Run, net: GPT) -> None:
        cfg, data = run.cfg, run.data
        self._run_dir, self._data, self._net = run.dir, data, net
        self.logger = TensorBoardLogger(run.dir, run.kept_until, data.tokens_per_step, run.kneser_ney_loss)
        self.logger.text("config", code_block(to_yaml(cfg)), run.kept_until + 1)  # of this session
        if run.kept_until < 0:
            self.logger.text("corpus", corpus_in_markdown(cfg.data.path, data.corpus, run.kneser_ney_loss), 0)
            self.logger.layout()
        write_settings(run.dir, settings(cfg, data, net.num_parameters(), run.total_steps, run.val_every))
        self.callbacks: list[PeriodicCallback] = []
        if cfg.logger.sample_tokens:
            self.callbacks.append(LogSamples(self.logger, run.val_every, cfg.logger, data))
        if cfg.logger.images:
            self.callbacks.append(LogPlots(self.logger, run.val_every, data))

    def show_best(self, last_step: int, tested: Mapping[str, float]) -> None:
        """Log the plots, samples and embeddings of the best checkpoint, whose weights the network has by now.

        They stand one step after the last: a run that is resumed from there removes them and writes them again.

        Args:
            last_step: of the run
            tested: the metrics of the test split
        """
        self._net.eval()
        self.logger.log_metrics(tested, last_step + 1)
        for callback in self.callbacks:
            callback.show(self._net, last_step + 1)
        self.logger.flush()
        failpoint("end.embeddings")
        write_projector(self._run_dir, self._net, self._data)
