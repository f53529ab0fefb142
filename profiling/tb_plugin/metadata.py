"""What TensorBoard is told about the tab."""

NAME = "abtrace"
TAB_NAME = "A/B Trace"
ES_MODULE = "/static/index.js"
