"""From libFM's files to recommendations: read, learn as libFM does, then go on with ids.

Here the file is written first; yours is there already. Nothing is downloaded. It needs
scikit-learn, which reads and writes the format: pip install 'fmknn[libfm]'.
"""

import numpy as np

import fmknn

# what libFM would be given: a line per rating, "4.5 17:1 203:1", users first and then items
ratings, _ = fmknn.datasets.make_interactions(120, 60, 3000, noise=0.3, random_state=0)
ratings = ratings.without_features()
known, held_out = fmknn.splits.random(ratings, test=0.2, random_state=0)
fmknn.datasets.write_libfm("train.libfm", known)
fmknn.datasets.write_libfm("test.libfm", held_out)

# 1. read. Both files get one width: the number of features that there are
n_users, n_items = 120, 60
X, y = fmknn.datasets.read_libfm("train.libfm", n_features=n_users + n_items)
X_test, y_test = fmknn.datasets.read_libfm("test.libfm", n_features=n_users + n_items)
print(f"train: {X.shape[0]} rows, {X.shape[1]} features, {X.nnz} entries")

# 2. learn from the matrix, as "libFM -method mcmc -dim '1,1,8'" does, any features whatever
fm = fmknn.FMRegressor(8, solver=fmknn.Gibbs(prior="independent"), random_state=0).fit(X, y)
print(f"test rmse, by Gibbs sampling: {np.sqrt(np.mean((fm.predict(X_test) - y_test) ** 2)):.3f}")

# 3. one-hot columns are users and items: say where they are, and go on with ids and top-N
blocks = {"user": slice(0, n_users), "item": slice(n_users, n_users + n_items)}
titles = {"item": [f"film {number}" for number in range(n_items)]}
train = fmknn.datasets.interactions_from_one_hot(X, y, blocks=blocks, ids=titles)
test = fmknn.datasets.interactions_from_one_hot(X_test, y_test, blocks=blocks, ids=titles)
model = fmknn.Recommender(fmknn.FMRegressor(8, random_state=0)).fit(train)
print(model.evaluate(test, ["rmse", "ndcg@10"]))
for user, items in model.recommend([17, 42], n=3):
    print(f"user {user}: " + ", ".join(f"{item} {score:.2f}" for item, score in items))
