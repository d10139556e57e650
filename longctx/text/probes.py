"""Texts on which two encoders of one vocabulary must agree before one may stand for the other.

Each names what two encoders have been seen to do differently: where pieces end (numbers, white
space, contractions, marks), what characters are letters, how control characters and emoji sequences
are spelled, and what is made of text that looks like a special token.
"""

_LANGUAGES = (
    "The court's ruling wasn't what we'd expected: they'll appeal, I'M SURE, he'S gone.",
    "Fünf große Äpfel für Jürgen – „ganz schön“ teuer, nicht wahr? Straße, STRASSE.",
    "L'été dernier, à l'hôtel, j'ai mangé des crêpes; aujourd'hui c'était différent.",
    "¿Dónde está el niño? ¡Mañana será otro día! El año 2024 costó 1.234,56 €.",
    "Быстрая коричневая лиса перепрыгнула через ленивую собаку в 1999-м году.",
    "Η γρήγορη αλεπού πηδά πάνω από το τεμπέλικο σκυλί. Ἀρχιμήδης",
    "빠른 갈색 여우가 게으른 개를 뛰어넘었습니다. 2026년 11월 28일, 서울특별시.",
    "敏捷的棕色狐狸跳过了懒狗。二〇二六年十一月，北京市朝阳区，共计１２３４５元。",
    "素早い茶色の狐はのろまな犬を飛び越えた。カタカナとひらがな、ｶﾅ、ー、々。",
    "الثعلب البني السريع يقفز فوق الكلب الكسول ١٢٣٤٥. السَّلَامُ عَلَيْكُمْ",
    "השועל החום המהיר קופץ מעל הכלב העצלן. שָׁלוֹם",
    "तेज भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। संख्या १२३४५।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ ๑๒๓๔๕",
    "Con cáo nâu nhanh nhẹn nhảy qua con chó lười biếng. Tiếng Việt: ường, ặng.",
    "cafe\u0301 A\u030a n\u0303 \u1e9b\u0323 \u212b \ufb01 \u00bd \u2460 \u0958 \uac01",
)

_CODE = (
    "def f(x, *args, **kw):\n    if x >= 10_000:\n\treturn x // 2  # half\n\n\n    return -x\n",
    '#include <stdio.h>\r\nint main(void) {\r\n  printf("%08.3f\\n", 3.14159e-10);\r\n}\r\n',
    "const re = /^(?:\\w+\\.)*\\d{1,3}$/gi; let a = b?.c ?? `x${y}`; // => !== === <<= >>>",
    "SELECT a.*, COUNT(*) FROM t AS a WHERE id IN (1,22,333,4444,55555) AND s LIKE '%x_y%';",
    '{"key": [1.5, -2e10, null, true], "nested": {"a_b-c": "\\u00e9\\n"}}',
    "<p class='x'>&nbsp;&#169;</p>\n\n\n<br/><!-- a--b -->\n</div></div>",
    "0x1F 0b1010 1e-7 1,234,567.89 12:34:56 2026-11-28T22:43:13Z 127.0.0.1 v1.2.3-rc.4+g532534e",
    "https://example.org/a/b?c=d&e=%20f#g user.name+tag@example.co.uk C:\\Users\\x.txt ~/.bashrc",
    "HTTPServerError camelCaseWord snake_case_word SCREAMING_CASE kebab-case x86_64 i18n",
)

_SPACE = (
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    " \n \n  \n",
    "\t\t x \t y\t",
    "\r\n\r\n\r x\r",
    "a  b   c    d     e",
    "   leading and trailing   ",
    "no-break\u00a0space \u2003em \u3000ideographic\u200bzero \u202fx\u2028line\u2029par\u0085nel",
    "1 2  3   4\n5\n\n6\t7",
    "x" + " " * 300 + "y" + "\n" * 300 + "z",
)

_MARKS = (
    "🙂👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇰🇷🇩🇪 text ☺️ ❤️‍🔥 1️⃣ ©®™",
    "\x00\x01\x02\x07\x08\x0b\x0c\x1b[31mred\x1b[0m\x7f\x80\x9f\ufeff\ufffd\ufffe\uffff",
    "\u202eright to left\u202c \u2066isolate\u2069 soft\u00adhyphen \u034f\u200d\u200c",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𐍈 𒀀 𓀀 \U0010ffff \ue000 Ⅷ ² ³ ₁ ½ ٣ ๓ ໓ ①",
    "!!! ??? ... --- ___ *** ''' \"\"\" ((( ))) [[[ ]]] {{{ }}} <<< >>> ||| &&& $$$ ### @@@",
    "“quotes” ‘single’ «guillemets» — – … • · ¶ § † ‡ ′ ″ ‰ € £ ¥ ₩ ₿ ∑ ∫ √ ≠ ≤ → ⇒ ∀ ∃",
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'VE 'M 'LL 'D ''s 's's ’s don’t 'ſ 'K",
    "e\u0301\u0302\u0303\u0304 \u0301 a\u0300\n\u0300 กำ เก็บ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "12345678901234567890123456789012345678901234567890 ==================================",
)

_LOOKALIKES = (
    "<|endoftext|> <|im_start|>user\nhello<|im_end|>\n<|fim_prefix|><|fim_middle|>",
    "<s>[INST] <<SYS>> be brief <</SYS>> hi [/INST] ok </s> <unk> <pad> <bos> <eos> <mask>",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|><|end_of_text|>",
    "[CLS] a [SEP] b [MASK] [PAD] [UNK] <think> </think> <tool_call> </tool_call>",
    "<| endoftext |> <|endoftext|x <|endoftext <|unknown|> |endoftext|>",
)

PROBES: tuple[str, ...] = (*_LANGUAGES, *_CODE, *_SPACE, *_MARKS, *_LOOKALIKES)
