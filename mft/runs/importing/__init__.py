"""Training configs of other tools, turned into a project and a recipe of ours. `importer.import_config` does it."""
