"""The names by which TensorBoard knows the tab."""

NAME = "abtrace"
TAB_NAME = "A/B Trace"
ES_MODULE = "/static/index.js"
