"""A Hugging Face Space of crane: copy this folder into a new Space with the SDK Gradio."""

import os

from crane.serving.app import App, AppOptions, launch

CHECKPOINTS = os.environ.get("CRANE_CHECKPOINTS", "crane_mvtec,crane_plus_mvtec").split(",")

options = AppOptions(CHECKPOINTS, ["qq+kk+vv", "vv", "clip"], max_images=8, max_pixels=20_000_000)
demo = App(options).blocks()

if __name__ == "__main__":
    launch(demo, options, host="0.0.0.0", port=7860, share=False)
    demo.block_thread()
