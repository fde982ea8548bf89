# SPDX-License-Identifier: GPL-2.0
"""How Sphinx builds this documentation (make doc)."""

project = "rust-vdpa"
author = "the rust-vdpa developers"
extensions = []
html_theme = "alabaster"
html_theme_options = {"description": "vDPA devices in Rust for old and new guests"}
nitpicky = True
