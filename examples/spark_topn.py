"""Lists for everybody by a Spark cluster; here a session of this machine stands for one.

    spark-submit --master yarn spark_topn.py

runs it on a cluster whose Python has fmknn. It needs Java, and pip install 'fmknn[spark]'.
"""

import os
import sys

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.functions import array, col

import fmknn

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # the executors' Python: it needs fmknn too
spark = SparkSession.builder.config("spark.ui.enabled", "false").getOrCreate()

# a model that was trained on one machine, whatever the solver
ratings, _ = fmknn.datasets.make_interactions(2000, 500, 60_000, context=7, random_state=0)
model = fmknn.Recommender(fmknn.FMRegressor(n_factors=8, n_iter=10, random_state=0)).fit(ratings)
model.save("films.fmknn")

# the customers are in Spark, each with the day of the next newsletter (a context of the model) and
# the films that they have bought elsewhere
customers = spark.range(1500).select(
    col("id").alias("user"),
    (col("id") % 7).alias("context"),
    array(col("id") % 500, (col("id") + 7) % 500).alias("exclude"),
)
there = fmknn.load("films.fmknn").with_backend(fmknn.SparkBackend(spark))
n_users = there.recommend_all(n=20, users=customers, to="lists.parquet")
lists = spark.read.parquet("lists.parquet")
print(f"{n_users} customers, {lists.count()} recommendations, {lists.columns}")

here = model.recommend([3], n=3, context={"context": 3}, exclude={3: [3, 10]})
first = lists.where("user = 3").orderBy("rank").limit(3).collect()
print("the same bits:", [(row["item"], row["score"]) for row in first] == next(iter(here))[1])

# ratings that are in Spark train Spark's own factorization machine: only distinct ids come here
columns = {"user": ratings.user_ids, "item": ratings.item_ids, "value": ratings.values}
frame = spark.createDataFrame(pa.table(columns))
estimator = fmknn.FMRegressor(4, solver=fmknn.SparkFM(max_iter=5), random_state=0)
trained = fmknn.SparkBackend(spark).train(frame, estimator)
spark_model = fmknn.Recommender.from_params(
    trained.params, users=trained.users, items=trained.items, loss=trained.loss
)
print(f"trained by Spark: {spark_model.params_}, {len(spark_model.recommend([3], n=3).items[0])}")
spark.stop()
