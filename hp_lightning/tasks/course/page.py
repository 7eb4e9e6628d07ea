"""The page: what was looked at, put into the templates next to this module, in one file that loads nothing."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from hp_lightning.common.console import log, messages
from hp_lightning.common.errors import RunError
from hp_lightning.common.files import atomic_write, check_target
from hp_lightning.common.run_dir import RunDir, find_checkpoint
from hp_lightning.schema.course import CourseConfig
from hp_lightning.tasks.course.learning import look_at_learning
from hp_lightning.tasks.course.network import COURSE_DROPOUT, look_at_network
from hp_lightning.tasks.course.papers import papers
from hp_lightning.tasks.course.subject import Subject, find_subject
from hp_lightning.tasks.course.using import NEW_TOKENS, TEMPERATURES, look_at_use
from hp_lightning.tasks.course.words import look_at_words


def write_page(cfg: CourseConfig) -> None:
    """Write the page, and say where.

    Raises:
        InputError: the checkpoint, the text or a corpus that was named is not usable
        RunError: the page cannot be written
    """
    with messages():
        checkpoint = find_checkpoint(cfg.ckpt)
        path = _target(cfg.to, checkpoint)
        page = render(find_subject(checkpoint, cfg), cfg)
        try:
            with atomic_write(path) as file:
                file.write(page.encode("utf-8", errors="replace"))  # a name may hold bytes that are no text
        except OSError as error:
            raise RunError(
                "output.not_writable", f"{path} cannot be written ({error.strerror}): name another file by to="
            ) from error
        log.info("%s", path)


def render(subject: Subject, cfg: CourseConfig) -> str:
    """The page as HTML; the same for the same checkpoint, corpus and config."""
    # Whatever comes from a corpus or a checkpoint is text: it is escaped.
    environment = Environment(
        loader=PackageLoader("hp_lightning.tasks.course"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        run=_name(subject.trained.path),
        subject=subject,
        cfg=subject.trained.cfg,
        course=cfg.course,
        course_dropout=COURSE_DROPOUT,
        words=look_at_words(subject, cfg.names),
        network=look_at_network(subject, cfg.course, cfg.seed),
        learning=look_at_learning(subject),
        using=look_at_use(subject, cfg),
        temperatures=TEMPERATURES,
        new_tokens=NEW_TOKENS,
        papers=papers(subject.trained.cfg),
    )


def _target(to: str | None, checkpoint: Path) -> Path:
    if to is None:
        run_dir = RunDir.of_checkpoint(checkpoint)
        path = checkpoint.with_suffix(".course.html") if run_dir is None else run_dir.course
    else:
        path = Path(to)
    check_target(str(path) if to is None else f"to={to}", path, checkpoint)
    return path


def _name(path: Path) -> str:
    """How the page calls a checkpoint: without the folders that are around its run."""
    whole = path.absolute()
    return whole.name if RunDir.of_checkpoint(whole) is None else "/".join(whole.parts[-3:])
