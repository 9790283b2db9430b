"""What happens when a person touches the page: files come, strokes are read, networks compute, results are shown."""

import html
import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import nn

from dptmat.app import steps
from dptmat.app.layout import KINDS, TAKE_BRUSH, VIEWS, Layout
from dptmat.app.messages import Messages
from dptmat.app.session import Session
from dptmat.errors import UserError
from dptmat.tasks.predict import cut_out, quantize
from dptmat.tasks.score import takes_trimap

_Updates = dict[Any, Any]  # by components


class Page:
    """A page for one network, or for two that are compared.

    Args:
        networks: By what they are called, one or two.
        folder: For what is uploaded and made.
        tile, dtype: As for `dptmat.app.steps.matte`.

    Attributes:
        blocks: For gradio.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        folder: str,
        *,
        tile: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._networks, self._folder, self._messages = networks, folder, Messages(folder)
        self._matte = partial(steps.matte, tile=tile, dtype=dtype)
        self._marked = any(map(takes_trimap, networks.values()))
        with gr.Blocks(title="dptmat", analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            self._session = gr.State(None, delete_callback=lambda session: session and session.close())
            self._on = Layout(list(networks), self._marked)
            self._connect()

    def _connect(self) -> None:
        on, session = self._on, self._session
        everything = [
            session, on.photograph, on.loading, on.file, on.width, on.hint, on.marking, on.editor, on.go, on.results,
            on.said, on.slider, on.picture, on.view, on.shown, *on.downloads.values(),
        ]  # fmt: skip
        trimap = [session, on.file, on.kind, on.width, on.editor]
        look = [session, on.view, on.which, on.color, on.picture]
        connect = partial(self._connect_one, everything)
        for event, handler, inputs, place in (
            (on.photograph.upload, self._load_photograph, [session, on.photograph], on.photograph),
            (on.photograph.clear, self._forget, [session], on.photograph),
            (on.file.upload, self._load_trimap, trimap, on.file),
            (on.file.clear, self._load_trimap, trimap, on.file),
            (on.kind.input, self._load_trimap, trimap, on.file),
            (on.width.release, self._load_trimap, trimap, on.file),
            (on.view.input, self._turn, [session, on.view], on.shown),
            (on.which.input, self._look, look, on.picture),
            (on.color.input, self._look, look, on.picture),
            (on.picture.upload, self._look, look, on.picture),
            (on.picture.clear, self._look, look, on.picture),
        ):
            connect(event, handler, inputs, place)
        computed = connect(on.go.click, self._cut_out, [session, on.editor], on.said)
        connect(computed.then, self._look, look, on.shown)  # what was hidden until now takes its value then
        on.brush.input(None, on.brush, on.editor, js=TAKE_BRUSH)

    @staticmethod
    def _connect_one(outputs: list[Any], event: Any, handler: Any, inputs: list[Any], place: Any) -> Any:
        """Let an event call a handler, one at a time on all pages; ``place`` is where its progress is seen."""
        return event(
            handler, inputs, outputs, show_progress="minimal", show_progress_on=place, concurrency_limit=1,
            concurrency_id="computing", api_visibility="private",
        )  # fmt: skip

    def _forget(self, session: Session | None) -> _Updates:
        """Forget the photograph and all that was made of it."""
        if session:
            session.close()
        on = self._on
        empty = dict.fromkeys((on.photograph, on.file, on.editor, on.slider, on.shown))
        return {
            **empty, self._session: None, on.hint: gr.update(visible=True), on.results: gr.update(visible=False),
            on.loading: gr.update(visible=False), on.marking: gr.update(visible=False),
        }  # fmt: skip

    def _load_photograph(self, session: Session | None, upload: str | None) -> _Updates:
        """Take a new photograph in place of the former one; of one that cannot be read the former one stays."""
        on = self._on
        try:
            with self._messages.heard():
                image = steps.read_photograph(upload) if upload else None
        except (UserError, MemoryError) as error:
            self._messages.refuse(error)
            return {on.photograph: session.path("shown") if session else None}
        if image is None or upload is None:
            return {}
        updates = self._forget(session)
        session = Session(self._folder, upload, image.shape)
        shown = session.write("shown", steps.shrink(image))
        return {
            **updates, self._session: session, on.photograph: shown, on.hint: gr.update(visible=False),
            on.loading: gr.update(visible=self._marked), on.marking: gr.update(visible=self._marked),
            on.editor: _editor(shown),
        }  # fmt: skip

    def _load_trimap(
        self, session: Session | None, file: str | None, kind: str, width: float, marks: dict[str, Any] | None
    ) -> _Updates:
        """Take a trimap or a mask, under what is painted already; of one that cannot be used none is taken."""
        on, masks = self._on, kind == KINDS[1]
        updates: _Updates = {on.width: gr.update(visible=masks)}
        if session is None:
            return updates
        try:
            with self._messages.heard():
                session.trimap = steps.load_trimap(file, session.shape, width if masks else None) if file else None
        except (UserError, MemoryError) as error:
            self._messages.refuse(error)
            session.trimap = None
        shown = steps.tint(session.read("shown"), session.trimap)
        return {**updates, on.editor: _editor(session.write("tinted", shown), marks)}

    def _cut_out(self, session: Session | None, marks: dict[str, Any] | None) -> Iterator[_Updates]:
        """Let the networks compute, and show the alphas before what takes longer is made."""
        go, downloads = self._on.go, self._on.downloads.values()
        waiting = dict.fromkeys(downloads, gr.update(interactive=False))  # until `_look`
        yield {go: gr.update(value="Computing …", interactive=False), **waiting}
        try:
            if session is None:
                raise UserError("Load a photograph first.")
            image, trimap = session.image, self._trimap(session, marks)
            told, alphas = self._compute(image, trimap)
            yield self._show_alphas(session, trimap, told, alphas)
            for i, alpha in enumerate(alphas):
                session.write(self._called(i, "cutout"), cut_out(image, alpha))
                session.write(self._called(i, "alpha"), quantize(alpha, 8))
        except Exception as error:  # else the button would stay as it is
            self._messages.refuse(error)
        yield {go: gr.update(value="Cut out", interactive=True)}

    def _show_alphas(
        self, session: Session, trimap: np.ndarray | None, told: str, alphas: list[np.ndarray]
    ) -> _Updates:
        on = self._on
        if trimap is not None:
            session.write("shown_marks", steps.tint(session.read("shown"), trimap))
        looks = [steps.shrink(quantize(alpha, 8)) for alpha in alphas]
        pair = [session.write(f"compared_{i}", look) for i, look in enumerate(looks)]
        return {
            on.results: gr.update(visible=True),
            on.said: told,
            on.shown: session.write("shown_alpha", looks[0]),
            on.slider: tuple(pair) if len(pair) > 1 else None,
        }

    def _trimap(self, session: Session, marks: dict[str, Any] | None) -> np.ndarray | None:
        """Return what was loaded, with what was painted on it; None if no network wants to know."""
        if not self._marked:
            return None
        trimap = session.trimap
        for layer in marks["layers"] if marks else []:
            trimap = steps.paint(trimap, layer)
        return steps.require_marks(trimap)

    def _compute(self, image: np.ndarray, trimap: np.ndarray | None) -> tuple[str, list[np.ndarray]]:
        """Compute the alphas, and say how long it took."""
        alphas, told = [], []
        for name, network in self._networks.items():
            started = time.perf_counter()
            with self._messages.heard():
                alphas.append(self._matte(network, image, trimap))
            told.append(f"{html.escape(name)}: {time.perf_counter() - started:.1f} s")
        return f"{image.shape[1]} x {image.shape[0]} pixels; {', '.join(told)}", alphas

    def _called(self, i: int, kind: str) -> str:
        """Return the end of a file's name: the number of the network counts where there are two."""
        return kind if len(self._networks) == 1 else f"{i + 1}_{kind}"

    def _look(self, session: Session | None, view: str, which: str, color: str, picture: str | None) -> _Updates:
        """Show the results of one network, over a colour or a picture."""
        on, i = self._on, list(self._networks).index(which)
        if session is None or not session.has(self._called(i, "cutout")):
            return {}
        updates: _Updates = {}
        cutout, background = session.read(self._called(i, "cutout")), read_color(color)
        if picture:
            try:
                with self._messages.heard():
                    background = steps.fill(steps.read_photograph(picture), cutout.shape)
            except (UserError, MemoryError) as error:
                self._messages.refuse(error)
                updates[on.picture] = None
        composite = steps.over(cutout, background)
        session.write(self._called(i, "composite"), composite)
        looks = {
            "composite": steps.shrink(composite), "cutout": steps.chequer(steps.shrink(cutout)),
            "alpha": steps.shrink(cutout[..., 3]),
        }  # fmt: skip
        for kind, look in looks.items():
            session.write(f"shown_{kind}", look)
        updates |= {on.view: view, **self._turn(session, view)}
        for kind, button in on.downloads.items():
            updates[button] = gr.update(value=session.path(self._called(i, kind)), interactive=True)
        return updates

    def _turn(self, session: Session | None, view: str) -> _Updates:
        """Show another one of the results."""
        kind = f"shown_{VIEWS[view]}"
        return {self._on.shown: session.path(kind)} if session and session.has(kind) else {}


def read_color(color: str) -> np.ndarray:  # uint8 [3]
    """Read a colour as browsers write it: "#3a7d44", or "rgba(58, 125, 68, 1)"."""
    if found := re.fullmatch(r"#([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?", color or ""):
        return np.frombuffer(bytes.fromhex(found[1]), np.uint8)
    numbers = [float(number) for number in re.findall(r"[0-9.]+", color or "")[:3]]
    return np.clip(np.round(numbers if len(numbers) == 3 else [255] * 3), 0, 255).astype(np.uint8)


def _editor(background: str, marks: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the editor is to show: a picture, and over it what is painted already."""
    return {"background": background, "layers": marks["layers"] if marks else [], "composite": None}
