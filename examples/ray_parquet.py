"""Embed a column of Parquet files on several Ray actors, and write Parquet.

Run as `python examples/ray_parquet.py corpus/ embedded/ --text body --actors 4 --quota standard`, on one machine or, with
`ray job submit`, on a cluster. The key is in PINECONE_API_KEY. If an actor or its machine dies, Ray embeds the blocks again
that it had not finished; every row is in the output once.
"""

import argparse

import ray.data

from pinecone_embed_async.integrations.ray import ClusterQuota, add_vectors


def main() -> None:
    """Read, embed, write."""
    parser = argparse.ArgumentParser(description="Embed a column of Parquet files on several Ray actors.")
    parser.add_argument("source", help="a Parquet file or a folder of them")
    parser.add_argument("target", help="a new folder")
    parser.add_argument("--text", default="text", help="the column with the texts")
    parser.add_argument("--model", default="multilingual-e5-large")
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--quota", help="your plan: starter, builder, standard or enterprise; learned if left out")
    parser.add_argument("--rows-per-block", type=int, default=1000, help="what is embedded again at most if an actor dies")
    arguments = parser.parse_args()
    dataset = add_vectors(
        ray.data.read_parquet(arguments.source).repartition(target_num_rows_per_block=arguments.rows_per_block),
        arguments.model,
        text=arguments.text,
        errors="error",
        input_type="passage",
        quota=ClusterQuota(arguments.quota),
        actors=arguments.actors,
    )
    dataset.write_parquet(arguments.target)


if __name__ == "__main__":
    main()
