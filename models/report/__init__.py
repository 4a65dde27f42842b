"""`maskdepth report`: a run folder as one HTML page that needs nothing else, also no network.

folder.py     the run folder -> `RunFolder`: configuration, records, panels
curves.py     records -> the charts that are shown
chart.py      a chart -> SVG
extremes.py   validation batches -> the best and the worst predictions as pictures
page.py       all of it -> the page; tables.py image.py style.py are parts of it
"""
