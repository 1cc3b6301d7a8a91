import tensorflow as tf

from trainer.cluster.strategy import connect, mirrored, on_cpu


def test_auto_is_one_device_where_there_is_one(cpus):
    strategy = connect("auto", virtual_devices=None, deterministic=False)
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert on_cpu(strategy)


def test_auto_is_mirrored_over_virtual_devices(cpus):
    strategy = connect("auto", virtual_devices=4, deterministic=False)
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 4
    assert on_cpu(strategy)


def test_strategies_of_several_sizes_live_in_one_process(cpus):
    for replicas in (2, 4, 3):
        strategy = mirrored(cpus[:replicas])

        @tf.function
        def total(strategy=strategy):
            def one():
                context = tf.distribute.get_replica_context()
                return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0))

            return strategy.experimental_local_results(strategy.run(one))

        assert [value.numpy() for value in total()] == [replicas] * replicas
