"""One self-contained HTML page of a run: `mft.report.page.write_report`."""
