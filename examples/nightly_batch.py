"""Tonight's recommendations for all customers, into the database that tomorrow's e-mail is made of.

Without an argument purchases are generated. With one, it is the gzipped csv file of UCI's Online
Retail (Chen, 2015, doi 10.24432/C5BW33, CC BY 4.0). In a shell it would be

    fmknn fit purchases.csv --model shop.fmknn
    fmknn recommend shop.fmknn --all -n 20 --to sqlite:///shop.db --resume
"""

import csv
import gzip
import sqlite3
import sys

import numpy as np

import fmknn


def generated():
    drawn = fmknn.datasets.make_interactions(
        800, 400, 100_000, zipf=0.3, noise=0.1, random_state=3, return_truth=False
    )
    liked = np.flatnonzero(drawn.values > np.quantile(drawn.values, 0.8))
    return drawn.user_ids[liked], [f"product {item}" for item in drawn.item_ids[liked]]


def online_retail(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["CustomerID"]]
    bought = [line for line in lines if int(line["Quantity"]) > 0]
    customers = [int(float(line["CustomerID"])) for line in bought]
    return customers, [line["Description"] for line in bought]


customers, products = generated() if len(sys.argv) < 2 else online_retail(sys.argv[1])
purchases = fmknn.Interactions.from_arrays(customers, products)
shop = fmknn.Recommender(fmknn.FMRanker(n_factors=32, random_state=0)).fit(purchases)

# killed and started again, it goes on, or begins anew if there are new purchases; until it is
# complete the shop has yesterday's rows
n_users = shop.recommend_all(n=20, to="sqlite:///shop.db", chunk=500, resume=True)

database = sqlite3.connect("shop.db")
[run] = database.execute("SELECT n_users, n_rows, n_chunks FROM recommendations_runs")
print(f"{n_users} customers: {run[1]} rows in {run[2]} chunks")

database.execute("CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, mail, wants_mail)")
everybody = [(id, f"customer{id}@example.com", id % 3 > 0) for id in shop.users.ids.tolist()]
database.executemany("INSERT OR REPLACE INTO customers VALUES (?, ?, ?)", everybody)
campaign = """
    SELECT mail, MAX(item_id) FILTER (WHERE rank = 1), MAX(item_id) FILTER (WHERE rank = 2)
    FROM customers JOIN recommendations ON user_id = id
    WHERE wants_mail AND rank <= 2
    GROUP BY mail ORDER BY id LIMIT 5"""
print(campaign.replace("\n    ", "\n"))
for mail, first, second in database.execute(campaign):
    print(f"{mail}: {first.strip()}, {second.strip()}")
