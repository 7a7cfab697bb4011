"""Training and batch search on Apache Spark, behind the same interface.

``backend`` (what a Recommender is given), ``config`` (settings of Spark's FM; needs no pyspark),
``training`` (Spark's FM in, parameters out), ``users`` (the users' side of a search, made on the
driver), ``search`` (what a task does), ``sinks`` (where lists are written to).
"""
