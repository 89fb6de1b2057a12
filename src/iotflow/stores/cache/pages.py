"""Ids lie close together, so what is kept by id lies in pages of 32.

An entry takes 12 bytes besides its value, where a dictionary takes about a hundred with its key;
one alone on its page takes some 400. The page is `id >> PAGE_BITS`, the place `id & IN_PAGE`.
"""

PAGE_BITS = 5
PAGE = 1 << PAGE_BITS
IN_PAGE = PAGE - 1
