"""Hugging Face's Trainer as its documentation has it, on a small model and data made up here, without network.

twinrun twins -n 2 --arm nd -- python huggingface.py
"""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

set_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
model = BertForSequenceClassification(BertConfig(vocab_size=64, max_position_embeddings=16, **sizes))
examples = [{"input_ids": torch.randint(64, (16,)), "labels": number % 2} for number in range(64)]
settings = TrainingArguments(
    output_dir="out", seed=0, max_steps=12, per_device_train_batch_size=8, save_steps=12, logging_steps=4,
    disable_tqdm=True, report_to=[], use_cpu=True,
)  # fmt: skip
Trainer(model=model, args=settings, train_dataset=examples).train()
