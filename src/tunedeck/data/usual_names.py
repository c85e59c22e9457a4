"""Names that columns usually have, in English and Chinese; the first of a kind wins over all others."""

from __future__ import annotations

TEXT_COLUMNS = (
    "text",
    "sentence",
    "content",
    "review",
    "comment",
    "tweet",
    "question",
    "input",
    "文本",
    "内容",
    "正文",
    "句子",
    "评论",
    "评价",
    "问题",
)
LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "category",
    "sentiment",
    "target",
    "intent",
    "topic",
    "标签",
    "类别",
    "分类",
    "情感",
    "意图",
)
RARER_TEXT_COLUMNS = (
    "评论内容",
    "文本内容",
    "评价内容",
    "微博内容",
    "微博正文",
    "留言内容",
    "留言",
    "语句",
    "问句",
    "描述",
    "摘要",
    "review text",
    "review_text",
    "comment_text",
    "message",
    "utterance",
    "body",
    "description",
)
"""Looked for where none of TEXT_COLUMNS is there."""
RARER_LABEL_COLUMNS = (
    "情感倾向",
    "情感类别",
    "情感标签",
    "情感分类",
    "情绪",
    "类型",
    "类目",
    "分类标签",
    "主题",
    "意图类别",
    "评分",
    "星级",
    "label_text",
    "label_name",
    "class_name",
    "polarity",
    "rating",
    "stars",
)
ANCHOR_COLUMNS = (
    "anchor",
    "query",
    "question",
    "sentence1",
    "text1",
    "sentence_1",
    "text_1",
    "查询",
    "问题",
    "句子1",
    "文本1",
)
POSITIVE_COLUMNS = (
    "positive",
    "answer",
    "document",
    "passage",
    "sentence2",
    "text2",
    "sentence_2",
    "text_2",
    "答案",
    "回答",
    "文档",
    "句子2",
    "文本2",
)
NEGATIVE_COLUMNS = ("negative", "hard_negative", "负例")
SCORE_COLUMNS = ("score", "similarity", "similarity_score", "分数", "相似度")
CHAT_COLUMNS = ("messages", "conversations", "instruction", "output", "prompt", "completion", "response")
USUAL_NAMES = frozenset(
    (
        *TEXT_COLUMNS,
        *LABEL_COLUMNS,
        *RARER_TEXT_COLUMNS,
        *RARER_LABEL_COLUMNS,
        *ANCHOR_COLUMNS,
        *POSITIVE_COLUMNS,
        *SCORE_COLUMNS,
        *CHAT_COLUMNS,
        "id",
        "title",
        "编号",
        "序号",
        "标题",
    )
)
"""A row with one of these is a header. "negative" is left out: it is a label more often than a column."""
