"""Steps that are done by a job of their own: a SparkApplication, or a TrainJob.

At compile time the configuration becomes the job's object, without the run's own words. In the cluster a small pod
fills them in, makes the object, follows it to its end and tidies up. The job runs the very step that the pod would.
"""
