"""The form that MLflow's unified route wants a chat to have, and what it sends on of one.

The forms are pydantic's, as the gateway's own are, and have the names that show in its refusals, so that one has the same words (seen
with MLflow 3.17.2, section 7 of the provider wire facts).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from byok.sandbox.dialects.mlflow_relay import Told

_Limit = Annotated[int | None, Field(ge=1)]
_Kind = Literal["array", "boolean", "integer", "null", "number", "object", "string"]


class TextContentPart(BaseModel):
    """A part of a message with text."""

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """An image."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImageContentPart(BaseModel):
    """A part with an image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(BaseModel):
    """Sound."""

    data: str
    format: Literal["wav", "mp3"]


class AudioContentPart(BaseModel):
    """A part with sound."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class ReasoningSummaryPart(BaseModel):
    """A part of a summary of reasoning."""

    type: Literal["summary_text"]
    text: str


class ReasoningContentPart(BaseModel):
    """A part with reasoning."""

    model_config = ConfigDict(extra="allow")

    type: Literal["reasoning"]
    summary: list[ReasoningSummaryPart] = []


_Part = Annotated[TextContentPart | ImageContentPart | AudioContentPart | ReasoningContentPart, Field(discriminator="type")]


class Function(BaseModel):
    """What a call of a tool calls."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(BaseModel):
    """A call of a tool."""

    id: str
    type: str = "function"
    function: Function


class ChatMessage(BaseModel):
    """A message."""

    role: str
    content: Annotated[str | list[_Part] | None, Field(union_mode="left_to_right")] = None
    tool_calls: list[ToolCall] | None = None
    refusal: str | None = None
    tool_call_id: str | None = None


class ParamProperty(BaseModel):
    """A property in the schema of a tool: what is not named here is lost."""

    type: _Kind | list[_Kind] | None = None
    description: str | None = None
    enum: list[str | int | float | bool] | None = None
    items: ParamProperty | None = None


class FunctionParams(BaseModel):
    """The schema of a tool's arguments."""

    properties: dict[str, ParamProperty]
    type: Literal["object"] = "object"
    required: list[str] | None = None
    additionalProperties: bool | None = None


class FunctionToolDefinition(BaseModel):
    """A function that can be called."""

    name: str
    description: str | None = None
    parameters: FunctionParams | None = None
    strict: bool | None = None


class UnityCatalogFunctionToolDefinition(BaseModel):
    """A function of a catalogue of Databricks."""

    name: str


class ChatToolWithUC(BaseModel):
    """A tool."""

    type: Literal["function", "uc_function"]
    function: FunctionToolDefinition | None = None
    uc_function: UnityCatalogFunctionToolDefinition | None = None


class JsonSchemaSpec(BaseModel):
    """A named schema."""

    model_config = ConfigDict(extra="allow")

    name: str
    shape: dict[str, Any] = Field(alias="schema")
    strict: bool = True


class ResponseFormat(BaseModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaSpec | None = None


class ToolChoiceFunction(BaseModel):
    """The name of a tool."""

    name: str


class ToolChoice(BaseModel):
    """The choice of one tool."""

    type: Literal["function"]
    function: ToolChoiceFunction


class RequestPayload(BaseModel):
    """A chat; members that are not named here pass as they are. Problems are told in the order of the members."""

    model_config = ConfigDict(extra="allow")

    n: int = Field(1, ge=1)
    stop: list[str] | None = Field(None, min_length=1)
    max_tokens: _Limit = None
    max_completion_tokens: _Limit = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    top_k: _Limit = None
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[ChatToolWithUC] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None


def sent_on(body: dict[str, Any]) -> dict[str, Any]:
    """What the upstream gets of a chat: `n` besides, and of a tool's schema no more than the first level.

    Raises:
        Told: The chat is of a wrong form, with all that is wrong about it.
    """
    try:
        read = RequestPayload.model_validate(body)
    except ValidationError as error:
        raise Told(400, f"Invalid chat payload: {error}") from None
    return read.model_dump(by_alias=True, exclude_none=True)
