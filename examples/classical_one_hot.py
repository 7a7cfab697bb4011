"""The method step by step, on a classical one-hot matrix: train, project, search, check.

An FM's score of (user, item) is, but for a term that is the same for all of the user's items, the
inner product of [V_u, 1] and [V_i, w_i]. So the largest inner products are the best items.

MovieLens is taken from $FMKNN_DATA or the cache folder, or downloaded.
"""

import numpy as np
import scipy.sparse as sp

import fmknn

ratings = fmknn.datasets.load_movielens("100k")
n_rows, n_users, n_items = len(ratings), len(ratings.users), len(ratings.items)
user_columns, item_columns = slice(0, n_users), slice(n_users, n_users + n_items)

# 1. one row per rating: a 1 in the user's column and a 1 in the item's
columns = np.stack([ratings.user_index, n_users + ratings.item_index], axis=1).ravel()
X = sp.csr_array((np.ones(2 * n_rows), columns, np.arange(0, 2 * n_rows + 1, 2)))
print(f"X: {X.shape[0]} x {X.shape[1]}, {X.nnz} ones")

# 2. train. Without blocks=, the two one-hot ranges would be found in X
fm = fmknn.FMRegressor(n_factors=8, solver="als", random_state=0)  # one w0, w and V to check
fm.fit(X, ratings.values, blocks={"user": user_columns, "item": item_columns})

# 3. project
items = fmknn.item_matrix(fm.params_, item_columns)  # [V_i, w_i]
users, offsets = fmknn.user_matrix(fm.params_, user_columns, return_offset=True)  # [V_u, 1]
print(f"item matrix {items.shape}, user matrix {users.shape}")

# 4. index the items, and search with all users at once
hits = fmknn.FaissIndex("Flat").build(items).search(users, n=100)
scores = offsets[:, None] + hits.scores

# 5. check: the textbook formula, w0 + w_u + w_i + <V_u, V_i>, for every user and every item
w0, w, V = (np.float64(part) for part in (fm.params_.w0, fm.params_.w, fm.params_.V))
textbook = w0 + w[user_columns, None] + w[item_columns] + V[user_columns] @ V[item_columns].T
best = np.argsort(-textbook, axis=1, kind="stable")[:, :100]
difference = np.abs(scores - np.take_along_axis(textbook, hits.positions, axis=1)).max()
print(f"same item in {np.mean(hits.positions == best):.2%} of {best.size:,} places")
print(f"largest difference between the scores: {difference:.1e}")
assert np.array_equal(hits.positions, best) and difference < 1e-5
