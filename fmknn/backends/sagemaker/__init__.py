"""Training and search by Amazon SageMaker's own algorithms, behind the same interface.

The backend and what it makes: ``backend``, ``solver`` (a training job), ``knn`` (an index of a
training job and batch transforms, with ``groups`` and ``answers``), ``trained`` (models that are
there already), ``state_machine`` (the same under AWS Step Functions).

What SageMaker is asked, and how: ``hyperparameters``, ``images``, ``requests``; ``run`` (names,
storage, cleanup), ``jobs`` (created, watched, stopped), ``logs``, ``s3``, ``clients`` (boto3 and
its errors).

Bytes, without AWS: ``recordio`` (with ``recordio_frames``, ``recordio_kernel``, ``records``) for
data, ``mxnet_params``, ``archive`` and ``artifact`` for models.
"""
