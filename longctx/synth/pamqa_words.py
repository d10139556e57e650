"""The fixed words of PAM QA's prompts and responses in each language, and the refusal."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wording:
    """The fixed words of prompt and response in a language."""

    question: str
    relevant: str
    none: str
    between: str
    answer: str
    refusal: str
    heading: str
    task: str


WORDING = {
    "en": Wording(
        question="Question: ",
        relevant="Relevant documents: ",
        none="none",
        between=", ",
        answer="My answer is: ",
        refusal="All documents are irrelevant and I do not know.",
        heading="Search results:",
        task=(
            "Read the search results above and answer the question correctly. Use only results "
            "that bear on it, or what you know for certain; make nothing up. If none of the "
            "results is relevant, say that all documents are irrelevant and that you do not know."
        ),
    ),
    "zh": Wording(
        question="问题：",
        relevant="相关文档：",
        none="无",
        between="、",
        answer="我的答案是：",
        refusal="所有文档都不相关，我不知道。",
        heading="检索结果：",
        task=(
            "请阅读以上检索结果，正确回答问题。只使用与问题有关的结果或你确知的知识，不要编造。"
            "如果没有任何相关的结果，请说明所有文档都不相关，你不知道答案。"
        ),
    ),
    "ko": Wording(
        question="질문: ",
        relevant="관련 문서: ",
        none="없음",
        between=", ",
        answer="제 답은: ",
        refusal="모든 문서가 관련이 없어 알 수 없습니다.",
        heading="검색 결과:",
        task=(
            "위의 검색 결과를 읽고 질문에 올바르게 답하십시오. 질문과 관련된 결과나 확실히 아는 "
            "지식만 사용하고 지어내지 마십시오. 관련된 결과가 하나도 없으면 모든 문서가 관련이 "
            "없으며 답을 알 수 없다고 하십시오."
        ),
    ),
}


def wording(lang: str) -> Wording:
    """The fixed words of a language; ValueError where there are none."""
    if lang not in WORDING:
        raise ValueError(f"no wording in {lang!r}: there is {', '.join(WORDING)}")
    return WORDING[lang]
