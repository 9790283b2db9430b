"""What is on the page: gradio's components, in three steps."""

import json
from abc import ABCMeta
from typing import Any

import gradio as gr

from dptmat.app.steps import BRUSHES

KINDS = ("Trimap", "Rough mask")
STATES = {"Foreground": 2, "Background": 0, "Unknown": 1}  # what can be painted, as values of a trimap
DOWNLOADS = {"alpha": "alpha", "cutout": "cut-out", "composite": "picture"}
VIEWS = {"On the new background": "composite", "Cut-out": "cutout", "Alpha": "alpha", "Trimap": "marks"}
_MARK = (
    "Paint a few strokes on what is surely foreground, and a few on what is surely background. Leave edges, hair and "
    "all that is see-through without a mark: how opaque that is the network finds out. The nearer the marks come to "
    "it, the better."
)
_VIEW = (
    "The cut-out has the foreground's own colours, and is transparent where the chequerboard is seen. Alpha is how "
    "opaque the foreground is: white wholly, black not at all."
)
_VIEW_MARKED = " The trimap is what the network was told: foreground is green, background blue."


def _as_uploaded(place: Any, payload: Any) -> str | None:
    return payload.path if payload else None


# An image component that hands over the file as it is: this library reads it, and says what is wrong with it. An
# ordinary subclass would do, but of each one gradio's metaclass writes a file into this folder.
_Upload: Any = ABCMeta.__new__(
    type(gr.Image), "_Upload", (gr.Image,), {"is_template": True, "preprocess": _as_uploaded}
)


def _upload(**options: Any) -> gr.Image:
    """Make a place for a file to be dropped on, or pasted into."""
    return _Upload(sources=["upload", "clipboard"], buttons=[], **options)


_COLORS = {name: "#{:02x}{:02x}{:02x}".format(*BRUSHES[value]) for name, value in STATES.items()}
_BRUSH: dict[str, Any] = {"default_size": 24, "colors": list(_COLORS.values()), "color_mode": "fixed"}
# Takes the brush of a colour in the browser itself, before the next stroke can begin.
TAKE_BRUSH = (
    f"state => ({{__type__: 'update', brush: {{...{json.dumps(_BRUSH)}, "
    f"default_color: {json.dumps(_COLORS)}[state]}}}})"
)


class Layout:
    """The components, to be made inside of ``gradio.Blocks``.

    Args:
        names: Of the networks, one or two.
        marked: Whether one of them needs a trimap.
    """

    def __init__(self, names: list[str], marked: bool) -> None:
        how = ", mark roughly what is foreground and what is background," if marked else ""
        gr.Markdown(
            f"# Cut out a photograph\nLoad a photograph{how} and press **Cut out**. Nothing leaves this computer."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                gr.Markdown("## 1. Photograph")
                self.photograph = _upload(label="Photograph", height=240, elem_id="photograph")
                self._draw_file()
            with gr.Column(scale=3, min_width=320):
                self._draw_marking(marked)
        with gr.Column(visible=False) as self.results:
            self._draw_results(names, marked)

    def _draw_file(self) -> None:
        with gr.Accordion("Or load a trimap or a mask", open=False, visible=False) as self.loading:
            self.file = gr.File(label="Trimap or mask, as large as the photograph", height=140, elem_id="trimap")
            self.kind = gr.Radio(KINDS, value=KINDS[0], label="What the file is", elem_id="kind")
            self.width = gr.Slider(
                0.2, 15, 3, step=0.1, label="Unknown to either side of its outline, % of the longer side",
                visible=False, elem_id="width",
            )  # fmt: skip

    def _draw_marking(self, marked: bool) -> None:
        gr.Markdown("## 2. Foreground and background" if marked else "## 2. Cut out")
        self.hint = gr.Markdown("First load a photograph.")
        with gr.Column(visible=False) as self.marking:
            gr.Markdown(_MARK)
            self.brush = gr.Radio(list(STATES), value="Foreground", show_label=False, elem_id="brush")
            self.editor = gr.ImageEditor(
                show_label=False, sources=[], transforms=[], layers=False, brush=gr.Brush(**_BRUSH),
                eraser=gr.Eraser(24), type="numpy", image_mode="RGBA", format="png", buttons=[],
                height=480, elem_id="editor",
            )  # fmt: skip
        self.go = gr.Button("Cut out", variant="primary", elem_id="go")

    def _draw_results(self, names: list[str], marked: bool) -> None:
        several = len(names) > 1
        gr.Markdown("## 3. Result")
        self.said = gr.Markdown(elem_id="said")
        self.slider = gr.ImageSlider(
            label="Alpha: " + " | ".join(names), type="filepath", buttons=["fullscreen"], visible=several,
            elem_id="slider",
        )  # fmt: skip
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self.view = gr.Radio(
                    list(VIEWS)[: 4 if marked else 3], value=next(iter(VIEWS)), show_label=False, elem_id="view"
                )
                self.shown = gr.Image(
                    show_label=False, interactive=False, buttons=["fullscreen"], type="filepath", height=480,
                    elem_id="shown", alt_text="What is chosen above",
                )  # fmt: skip
                gr.Markdown(_VIEW + _VIEW_MARKED * marked)
            with gr.Column(scale=2, min_width=280):
                self.which = gr.Radio(names, value=names[0], label="Network", visible=several, elem_id="which")
                self.color = gr.ColorPicker("#3a7d44", label="New background: a colour", elem_id="color")
                self.picture = _upload(label="Or a picture", height=160, elem_id="picture")
                self.downloads = {
                    kind: gr.DownloadButton(f"Download the {what}", interactive=False, elem_id=f"download-{kind}")
                    for kind, what in DOWNLOADS.items()
                }
