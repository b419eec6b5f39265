"""The same measurement with Hugging Face `tokenizers`, one thread: python3 bench/tokenizers_hf.py tokenizer.json FILE..."""
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer

STRETCH = 1 << 16


def stretches(text):
    at = 0
    while at < len(text):
        end = len(text) if len(text) - at <= STRETCH else text.find(b"\n", at + STRETCH) + 1 or len(text)
        yield text[at:end].decode()
        at = end


tokenizer = Tokenizer.from_file(sys.argv[1])
for path in sys.argv[2:]:
    data = open(path, "rb").read()
    parts = list(stretches(data))
    best, decode = 1e9, 1e9
    for _ in range(3):
        start = time.process_time()
        encoded = [tokenizer.encode(p, add_special_tokens=False) for p in parts]
        best = min(best, time.process_time() - start)
    ids = [i for e in encoded for i in e.ids]
    for _ in range(2):
        start = time.process_time()
        for e in encoded:
            tokenizer.decode(e.ids, skip_special_tokens=False)
        decode = min(decode, time.process_time() - start)
    checksum = 0
    for i in ids:
        checksum = (checksum * 31 + i) % 1000000007
    print(f"{os.path.basename(path):24} encode {len(data) / best / 1e6:7.1f} MB/s  decode {len(data) / decode / 1e6:7.1f} MB/s  {len(ids):9} tokens  ids {checksum}")
